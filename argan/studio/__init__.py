"""The page that `argan studio` serves on this machine: scenes, depth, depth of field and 3D in a browser.

images.py computes what is shown, catalog.py and state.py hold the models and photographs in use, page.py and tabs.py lay out the
page with gradio, and routes.py serves the previews, past gradio's queue; page.js requests them. server.py puts it all on a port.
"""

HOST = "127.0.0.1"  # this machine alone
