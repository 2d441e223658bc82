"""What was learned: one file per protocol, over features that are extracted once."""
