"""Large sets of images: drawn in shards that can be continued, on one machine or on many, and packed for evaluation."""
