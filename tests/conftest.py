"""The tests of the web pages need a browser and a built _site/: `make test-site` runs them, plain pytest leaves them
out."""

collect_ignore = ["colab", "site"]
