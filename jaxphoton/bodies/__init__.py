"""What clients send over HTTP, as asks, and results as they expect them: plain data, with nothing of a server in it.

    body = skills.parsed("caption", b'{"image_url": "data:image/png;base64,..."}')
    body.picture, body.ask, body.stream

Needs msgspec (extra `serve`). Whatever is wrong with a body is a `faults.BodyError`, whose message is for the sender.
"""
