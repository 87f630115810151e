"""What is said beside every prediction; docs/intended_use.md says it at length. Imports nothing."""

NOT_FELT = "What annotators would say of the pictures, not what a person felt, learned or meant."
NOT_FOR = "Not for judging, grading or watching people."
LIMITS = f"{NOT_FELT} {NOT_FOR}"
INTENDED_USE = [
    "For research, on faces of people who have consented. Everything is computed on this machine.",
    "A prediction is what annotators would say of a picture, not what the person felt, learned or meant.",
    "Not for judging, grading, ranking or monitoring learners or workers, nor for whatever decides about a person.",
    "In the European Union, Article 5(1)(f) of Regulation (EU) 2024/1689, the AI Act, prohibits placing on the market, "
    "putting into service or using AI systems that infer emotions of people at work or in education, except for "
    "medical or safety reasons.",
    "How well faces are found and read in people of other ages, skin colours, disabilities and cultures is unknown.",
    "face_id is the number of a track. Nobody is recognised: who leaves and comes back has another number.",
]
