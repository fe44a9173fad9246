"""What was measured, as data, and how it is shown. Knows neither torch nor fvcore."""

from hierarch.report.bench import BenchReport as BenchReport
from hierarch.report.bench import BenchRow as BenchRow
from hierarch.report.bench import BenchSetting as BenchSetting
from hierarch.report.bench import GemmLimit as GemmLimit
from hierarch.report.comparison import comparison as comparison
from hierarch.report.comparison import records as records
from hierarch.report.network import Report as Report
from hierarch.report.network import SizeReport as SizeReport
from hierarch.report.network import StageReport as StageReport
from hierarch.report.network import Verdict as Verdict
from hierarch.report.peer import PeerReport as PeerReport
from hierarch.report.peer import PeerSize as PeerSize
from hierarch.report.tables import Row as Row
from hierarch.report.tables import giga as giga
from hierarch.report.tables import markdown as markdown
from hierarch.report.tables import shown_size as shown_size
from hierarch.report.tables import table as table
