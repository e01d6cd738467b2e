"""The files of a store, in folders, buckets and on web servers, by one interface."""
