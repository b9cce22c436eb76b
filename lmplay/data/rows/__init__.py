"""From shards to rows in training order: what is held out, how documents fill rows, which row comes when."""
