"""How large a vocabulary: configs/tiny.py as it stands but for its tokenizer; bits per character compare across tokenizers.

Command:  python scripts/sweep.py configs/sweeps/vocabulary.py --jobs 2
"""

CONFIG = "configs/tiny.py"
COMMON = []
RUNS = {
    "vocab_size 5000": ["model.vocab_size=5000", "tokenizer.character_coverage=0.993"],
    "vocab_size 2500": ["model.vocab_size=2500", "tokenizer.character_coverage=0.98"],
    "vocab_size 3000": ["model.vocab_size=3000", "tokenizer.character_coverage=0.98"],
}
