from mixprof.api import ab as ab
from mixprof.api import build as build
from mixprof.api import count as count
from mixprof.api import figures as figures
from mixprof.api import load as load
from mixprof.api import load_published as load_published
from mixprof.api import sweep as sweep
from mixprof.api import time as time
