"""Where the files of a store lie: folders, buckets, web servers, spoken to in the same few words."""
