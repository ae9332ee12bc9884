"""From axes to cases: experiments that a sweep would run, and where their models come from."""
