"""Content from other episodes: recorded memories, and which episode gets which of them.

| donor | an episode gets |
|---|---|
| `other` | the state of an episode that remembers another thing, drawn by the recipient's seed |
| `same` | the state of another episode that remembers the same: the sham |
| `self` | its state of the plain run: the identity |
| `mean` | the mean of the other episodes at the same phase and step into it |
| `direction` | a decoder's direction from what it remembers to another thing |
| `orthogonal` | another direction, of the same norm and orthogonal to that: the sham |
"""
