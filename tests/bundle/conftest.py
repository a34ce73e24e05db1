"""Property tests here write files: their examples are not timed, only the whole test is."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
