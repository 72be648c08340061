"""Speed and memory of the shipped model beside named peers, measured in turn in one run."""
