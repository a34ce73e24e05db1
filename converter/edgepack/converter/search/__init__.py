"""The search for variants: what is tried, how it is judged, and what stays."""
