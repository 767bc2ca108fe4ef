"""What is written short, or in several ways, and how it reads in full: `pattern => replacement`, in this order."""

CONTRACTIONS = r"""
\bcan't\b|\bcannot\b|\bcant\b => can not
\bwon't\b|\bwont\b => will not
\bshan't\b => shall not
\b(do|does|did|is|are|was|were|has|have|had|would|should|could|must|need)n'?t\b => \1 not
\bain't\b => is not
\bI'm\b|\bim\b(?= ) => I am
(\w)'re\b => \1 are
(\w)'ve\b => \1 have
(\w)'ll\b => \1 will
(\w)'d\b => \1 would
\b(what|how|who|where|when|why|it|that|there|he|she)'s\b => \1 is
\b(what|how|who|where)s\b => \1 is
\blet's\b => let us
(?<=s)'(?=\s) =>  's
(\w)'s\b => \1 's
\b(?:am|is|are|was|were|be) (?:unable|not able) to\b => can not
\b(?:unable|not able) to\b => not
\b(fails?|failed|refuses?|refused) to\b => does not
\b(?:pls|plz)\b => please
\bhow do u\b => how do you
\b2fa\b => two-factor authentication
\bin order to\b => to
\bdo they\b => do people
\bturn (\S+|\S+ \S+|\S+ \S+ \S+) into\b => convert \1 to
\b(my|your|his|her|our|their) own\b => \1
\bthe (?:word|term|phrase|expression|abbreviation|acronym)(?= (?!of\b|for\b|in\b|that\b|to\b|is\b|count)\S) => the
\b(?:right now|at the moment|these days|at present|as of now)\b => currently
\bin (?:simple|plain|easy|layman's) (?:terms|words|language|english)\b => simply
\b(?:each|every|per)(?= (?:day|week|month|year|hour|minute|night|morning|person)\b) => a
\bdaily\b => a day
\bweekly\b => a week
\bmonthly\b => a month
\b(?:yearly|annually)\b => a year
\b(?:type|kind|sort)s? of\b => the
\b(?:wie geht's)\b => wie geht es
\bgibt's\b => gibt es
"""
