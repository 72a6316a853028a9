"""The process of one sandbox: it takes its connections and DNS packets, decides, and passes bytes."""
