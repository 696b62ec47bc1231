"""Watch a stream: classify its frames, let observers look on, and send answers and events on.

`loop.py` has the loop; `csv_file.py`, `mqtt.py` and `webhook.py` are sinks, which
all take a message and close; `outbox.py` keeps what a network has not taken yet.
"""
