//! Where volumes live: directories, reflink images.
