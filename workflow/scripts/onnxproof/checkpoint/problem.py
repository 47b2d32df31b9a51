"""How a check says what is wrong with a model's folder."""


class ProblemError(Exception):
    """One sentence that names a file of the folder, the key, the value seen and what to do.

    It never names the folder: whoever asked puts that, and the model's name, in front.
    """
