"""One module a provider: the reply as that provider's API would put it. Pure functions of request and reply."""
