"""Property tests here use keys: their examples are not timed, only the whole test is."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
