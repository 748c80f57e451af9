-- One segment's records, each on the day it is kept on: that of its record, but never one that is already closed.
CREATE OR REPLACE TEMP TABLE segment_entries AS
SELECT * REPLACE (greatest(day, CAST($first_open_day AS DATE)) AS day)
FROM journal_entries
