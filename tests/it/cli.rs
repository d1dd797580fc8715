//! The command line: exit codes, messages and files, as a user meets them.
