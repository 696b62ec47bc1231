"""What a machine is asked: does it answer right, how fast is it, what does it lack."""
