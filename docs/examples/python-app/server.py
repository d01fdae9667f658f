import sys

sys.path.insert(0, "packages")

import greeting

print(greeting.hello("world"))
