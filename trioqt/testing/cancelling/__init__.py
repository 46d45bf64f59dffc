"""A program cancelled at its first, second, ... last place, each in a run of its own, and what that lost or leaked.

Or interrupted by Ctrl-C at its first, second, ... last line.

It knows the places between two steps of a task, the lines of a program, and everything that a run can leave behind.
It must not know what the program is about: only the program can say whether it kept its promises.
"""
