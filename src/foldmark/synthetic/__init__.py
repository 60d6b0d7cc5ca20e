"""Synthetic faces with exact landmarks, to try the kit without any data set.

Each face is a parametric head (`head`, `curves`) under a pose, light and camera (`view`), painted (`skin`) and drawn as a
cloud of surface samples dense enough to leave no gaps (`canvas`, `scene`, `face`). They are laid out like the published
iBUG archive (`ibug`) or the IMM Face Database (`imm`), so every later step reads them as it reads real data.
"""
