"""Plain pytest leaves out what takes long or needs more than Python: `make test-faults` kills, stops and connects
processes, `make test-colab` needs Colab's kernel, and `make test-site` a browser and a built _site/."""

collect_ignore = ["colab", "faults", "site"]
