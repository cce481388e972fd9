"""Files of ours, and word of changes in files of anybody's: the rooms that touch a file system and no kernel rule."""
