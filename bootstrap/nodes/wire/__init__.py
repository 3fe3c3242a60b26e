"""Every parser of what a server sends: its text or reply in, nouns of `model` out, `WireError` where the format is
broken. Nothing here sends, waits or decides.
"""
