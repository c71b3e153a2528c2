"""One module per job, each from data to evaluated model; pipelines never import each other."""
