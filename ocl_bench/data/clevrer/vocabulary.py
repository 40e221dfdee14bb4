"""The words of CLEVRER's questions and answers, numbered alphabetically from 1 as in SlotFormer; 0 is padding."""

from __future__ import annotations

from ...core.errors import UsageError

_WORDS = (
    "after and any are before begins between blue brown collide collides colliding collision collisions color cube "
    "cube's cube, cubes cyan cylinder cylinder's cylinder, cylinders ends enter entering enters entrance event exit "
    "exiting exits first following for gray green happen how if is last many material metal moving next not object "
    "object's object, objects of presence purple red removed removed, responsible rubber scene second shape sphere "
    "sphere's sphere, spheres stationary that the there to video what when which will with without yellow"
)
WORDS = tuple(_WORDS.split())
"""The 81 words of questions and choices."""

_ANSWERS = "0 1 2 3 4 5 blue brown cube cyan cylinder gray green metal no purple red rubber sphere yellow yes"
ANSWERS = tuple(_ANSWERS.split())
"""The 21 answers of descriptive questions."""

QUESTION_LENGTH, CHOICE_LENGTH = 20, 12
"""Words to which a question and a choice are padded."""

_NUMBERS = {word: number for number, word in enumerate(WORDS, start=1)}
_ANSWER_NUMBERS = {word: number for number, word in enumerate(ANSWERS, start=1)}


def encode(question: str, choice: str = "") -> list[int]:
    """The numbers of the words of a question and of a choice.

    A question without a choice is padded to the length of both, as SlotFormer does. Raises UsageError for an unknown
    word and for a text that is too long.
    """
    if not choice:
        return _padded(question, QUESTION_LENGTH + CHOICE_LENGTH)
    return _padded(question, QUESTION_LENGTH) + _padded(choice, CHOICE_LENGTH)


def encode_answer(answer: str) -> int:
    """The number of an answer. Raises UsageError for an unknown one."""
    if answer not in _ANSWER_NUMBERS:
        raise UsageError(f"answer '{answer}' is not one of CLEVRER's: {', '.join(ANSWERS)}")
    return _ANSWER_NUMBERS[answer]


def _padded(text: str, length: int) -> list[int]:
    words = text.lower().replace("?", "").split()
    unknown = next((word for word in words if word not in _NUMBERS), None)
    if unknown is not None:
        raise UsageError(f"'{unknown}' in '{text}' is not a word of CLEVRER's vocabulary")
    if len(words) > length:
        raise UsageError(f"'{text}' has {len(words)} words, at most {length} are allowed")
    return [_NUMBERS[word] for word in words] + [0] * (length - len(words))
