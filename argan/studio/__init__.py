"""The page that `argan studio` serves on this machine: scenes, depth, depth of field and 3D in a browser.

work.py makes what is shown, desk.py holds the models and photographs in use, page.py lays out the page with gradio, and routes.py
serves the pictures that follow the hand, past gradio's queue; page.js asks for them. server.py puts it all on a port.
"""

HOST = "127.0.0.1"  # this machine alone
