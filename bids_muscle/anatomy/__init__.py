"""Label tables, regions and colours: data files and their small readers."""
