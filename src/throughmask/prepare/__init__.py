"""From videos to Samples: sources, cutting, one function that makes a Sample of a clip, an engine that loses nothing.

source --inputs--> cut --clips--> make --Sample or Reject--> ledger (folders or shards, rejects.jsonl)
"""
