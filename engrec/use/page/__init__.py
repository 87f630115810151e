"""A page on which a network is tried: pictures, videos, the camera.

server.py answers a browser on this machine, where Python computes; static.py writes the same page as files for any
host, where the browser computes. Plain JavaScript modules, no framework, no build step:

main.js puts the others together. source.js gives frames. local.js and browser.js are the two engines, which turn a
frame into faces with answers. stage.js, answers.js and plot.js show them, record.js keeps them for the CSV.
worker.js is the engine in the browser, with crop.js, yunet.js and track.js, which compute what engrec/faces does.
"""
