"""What networks say of every face in pictures, folders and videos; `engrec-predict` is the same command, installed.

python scripts/predict.py photo.jpg
python scripts/predict.py lesson.mp4 --video
"""

from engrec.use.command import main

if __name__ == "__main__":
    main()
