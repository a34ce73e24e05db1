"""`edgepack-agent doctor`: looks at everything that an agent needs, and says what to mend.

`finding` is what a check gives, `patient` what all checks look at; each other module has the checks
of one subject, and `examine` their order. Nothing is changed: a check writes at most a file that it
deletes again, and a message that says what stands already.
"""
