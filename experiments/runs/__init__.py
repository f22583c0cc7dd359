"""One run: started from checked settings, and made anew from its folder when it is finished."""
