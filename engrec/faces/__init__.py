"""From a photograph or a video to the face crops that a network was trained on."""
