"""The local stack: every part real, as processes under one folder, all on loopback. For trying out, for tests, for the demo."""
