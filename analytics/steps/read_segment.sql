-- One segment's calls, each on the day it is booked: that of its record, but never one that is already closed.
CREATE OR REPLACE TEMP TABLE segment_calls AS
SELECT * REPLACE (greatest(day, CAST($first_open_day AS DATE)) AS day)
FROM journal_calls
