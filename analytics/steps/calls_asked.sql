-- All calls booked before the variable as_of, on the day since or later.
FROM all_calls
WHERE recorded_at < getvariable('as_of') AND day >= getvariable('since')
