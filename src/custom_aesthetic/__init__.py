"""Teach a machine your taste in pictures: from scored pictures to a model file that scores any other."""
