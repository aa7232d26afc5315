/**
 * How long a test may wait before it counts as hanging, ms. Not a measure of speed: a machine with thirty
 * others at work takes fifteen times as long. Below the limit that scripts/test.mjs sets for a whole file,
 * so that a test which hangs says where, and takes its processes along.
 */
export const hangMs = 600_000;
