"""Notice when the images of a device have left behind what its model was made with."""
