"""The page that `argan studio` serves on this machine: scenes, depth, depth of field and 3D in a browser.

work.py makes what is shown, desk.py holds the models and photographs in use, server.py speaks HTTP, page/ is what the browser
loads: plain HTML, CSS and JavaScript, nothing from elsewhere.
"""
