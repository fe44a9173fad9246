"""Reports: results as frozen data, and the formats they are written in. Imports no torch."""

from hierarch.report.architecture import Architecture as Architecture
from hierarch.report.architecture import PartReport as PartReport
from hierarch.report.bench import BenchReport as BenchReport
from hierarch.report.bench import BenchRow as BenchRow
from hierarch.report.bench import BenchSetting as BenchSetting
from hierarch.report.bench import GemmLimit as GemmLimit
from hierarch.report.comparison import Comparison as Comparison
from hierarch.report.formats import FORMATS as FORMATS
from hierarch.report.formats import Listing as Listing
from hierarch.report.formats import Printable as Printable
from hierarch.report.formats import text as text
from hierarch.report.mixers import MixerListing as MixerListing
from hierarch.report.mixers import mixer_listing as mixer_listing
from hierarch.report.network import Report as Report
from hierarch.report.network import SizeReport as SizeReport
from hierarch.report.network import StageReport as StageReport
from hierarch.report.network import Verdict as Verdict
from hierarch.report.peer import PeerReport as PeerReport
from hierarch.report.peer import PeerSize as PeerSize
from hierarch.report.swap import SwapReport as SwapReport
from hierarch.report.tables import Row as Row
from hierarch.report.tables import giga as giga
from hierarch.report.tables import shown_size as shown_size
from hierarch.report.tables import table as table
from hierarch.report.validation import ValidatedSpec as ValidatedSpec
from hierarch.report.validation import Validation as Validation
