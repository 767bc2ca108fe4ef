"""How English asks: the openings of a request that say what kind of answer it wants, and the courtesy around them.

`FRAMES` has one a line: the kind of answer, a pattern at the beginning of a sentence, and after `=>` what replaces it,
so that "what is the height of" and "how tall is" read alike. A line that begins with spaces goes on. The first one
that fits wins, so that a longer one stands before its beginning.
"""

#: Dropped at the beginning of a sentence, again and again.
COURTESY = r"""
(?:hi there|hey there|hi|hello|hey|good (?:morning|afternoon|evening|day)|greetings)\b[,!.:]*
|(?:please|kindly|ok|okay|so|well|sorry|thanks a lot|thanks|thank you(?: very much| so much)?|excuse me
  |quick question|question|just wondering)\b[,!.:]*
|(?:(?:can|could|would|will) (?:you|someone|somebody|anyone|anybody) (?:please |kindly |maybe |possibly |quickly[ ]
  |just )*
   (?=tell|explain|help|show|give|let|describe|list|name|walk|teach|advise|remind|guide|inform|define|clarify|suggest|provide
   |recommend|write|create|generate|compose|draft|translate|summari[sz]e|calculate|compare|check|find|fix|convert|solve))
|(?:(?:can|could|would) you (?:please|kindly)\b)
|(?:(?:do|does|would) (?:you|anyone|anybody|someone) (?:happen to )?(?:actually )?know(?: about)?\b,?)
|(?:(?:i|we) (?:would|really|just|also|only|currently|quickly|'d|do)* ?(?:like|love|want|need|wish) (?:you )?to[ ]
   (?:know|understand|find out|learn|ask|see|hear|figure out|tell me|get to know|be told|explain)(?: to me| more)?
   (?: about)?\b)
|(?:(?:i am|i was|we are|we were) (?:just |currently |really )*(?:wondering|curious|asking myself
  |interested to know)(?: about| to know)?\b)
|(?:i wonder\b) | (?:any idea\b|do you have any idea\b|have you any idea\b) | (?:i (?:do not|have no) (?:know|idea)\b)
|(?:i am not (?:sure|certain)\b) | (?:my question is\b[:,]?) | (?:(?:please )?(?:tell|inform|advise) (?:me
  |us)(?: about)?\b)
|(?:let (?:me|us) know(?: about)?\b) | (?:i have a question\b[:,.]?) | (?:i would appreciate it if\b)
|(?:i (?:would )?(?:need|want|like) (?=a |an |some |the ))
"""

#: Dropped at the end of a sentence.
FAREWELL = r"""
,?\s*\b(?:please|thanks|thank you|thanks a lot|thank you very much|for me|if possible|if you can|if you could
|do you know|in advance|right\?|cheers|how (?:do|can|should) i do (?:that|this|it|so))
"""

#: What stands for a part of many patterns.
PARTS = {
    "who": r"(?:i|we|you|one|someone|somebody|a person|people|users|a user|anyone|customers|a customer|beginners|they)",
    "good": r"(?:(?:best|right|correct|proper|recommended|usual|good|normal|easiest|simplest|standard|ideal) )*",
    "way": r"(?:ways?|(?:\w+ )?command|methods?|process|procedures?|steps?|instructions?|approach|means|technique)",
    "be": r"(?:is|are|was|were|would be|might be)",
    "open": r"(?:what|which)",
}

FRAMES = r"""
what: at (?:what|which) (?=(?:temperature|age|speed|height|price)\b)
how-to: (?:give me |show me |i need |what is )?(?:a |an |the )?(?:good |simple |easy |best )?recipe for\b => make
how-to: how (?:do|can|could|would) (?:i|you|we|one) (?:know|tell|find out|see|recognize|recognise) (?:if|whether
  |when|that)\b => know if
# How to do something.
how-to: how (?:exactly |best )?(?:do|can|could|should|would|might|shall|must|may|am|are) <who>(?: supposed| able
  | best)?(?: to)?(?: go about| manage to| be able to| best| properly| correctly)?\b(?! (?:know|like|feel|think
  |look))
how-to: how to(?: go about| best| properly| correctly)?\b
how-to: <open> <be> (?:the |a |an |some |my )?<good><way>(?: (?:i|we|you|one) (?:need to|have to|should|must
  |can) (?:take|follow|use))?(?: (?:for (?:me|us) )?(?:to|of|for|in order to)\b)
how-to: <open> <good><way> (?:do|should|must|can|would|could) (?:i|we|you|one) (?:need to |have to )?(?:take|follow
  |use|do|go through)(?: in order)?(?: to| for| when)\b
how-to: what (?:do|does|should|must|can|would|could) <who> (?:need to |have to )?do (?:in order )?to\b
how-to: what (?:is|are) (?:needed|required|necessary|involved) (?:in order )?(?:to|in|for)\b
how-to: what <be> involved in\b
how-to: is there (?:a|any|some|an)? ?<good><way> (?:for (?:me|us) )?(?:to|of|for|i can)\b
how-to: (?:explain|describe|show|teach|demonstrate|outline)(?: to)?(?: me| us)? (?:how (?:to|i can|you can|one can
  |we can|i could|i should|i would|i|you|one)|the <good><way> (?:to|of|for))\b
how-to: (?:give|show|provide|list|send)(?: me| us)?(?: with)?(?: the| a| an| some)?(?: short| quick
  | simple)? (?:<way>|guide|tutorial|directions) (?:on how to|how to|to|for|on|of)\b
how-to: (?:walk|guide|take|talk) (?:me|us) through(?: the (?:steps?|process|procedure)(?: of| to
  | for)?)?(?: how to)?\b
how-to: (?:help|assist|support) (?:me|us)(?: to| with| in)?\b
how-to: (?:i|we) (?:need|want|could use|am looking for|would like)(?: some)? (?:help|assistance|support) (?:with|in
  |to|for)\b
how-to: (?:i|we) (?:would like|want|need|wish|am trying|are trying|am looking|have|plan|try) to\b
how-to: (?:the )?<good>(?:<way>|guide|tutorial|directions) (?:on how to|how to|to|for|on|of)\b
how-to: how (?:is|are|was|were) (?=.*(?:ed|made|built|done|grown|written|sent|paid|found|kept|cut|held|sold)\b)
what: how (?:do|does|are|is) (.+?) (?:differ|different) from\b => difference between \1 and
what: how (?:do|does|are|is) (.+?) (?:differ|different)\b => difference between \1
how-to: what is the (?:correct |right |proper )?(?=(?:pronunciation|spelling|calculation) of\b)
how-to: (?:what is|describe|explain) the treatment (?:for|of)\b => treat
what: (?:explain |describe )?what (?:do|does|did) (.+?) do$ => purpose of \1
what: (?:explain|describe) what (.+?) (?:do|does)$ => purpose of \1
what: what (?:is|are) the (?:job|role|task|function|use|purpose)s? of\b => purpose of
what: what (?:is|are) (.+?) (?:used|meant) for$ => purpose of \1
why: (?:what is |explain |describe )the importance of (.+) => \1 important
what: compare (.+?) (?:and|with|to|vs\.?|versus) (.+) => difference between \1 and \2
who: who (?:is|was|are|were) the (?:author|writer|composer)s? of\b => write
who: who (?:is|was|are|were) the creators? of\b => create
who: who (?:is|was|are|were) the owners? of\b => own
who: who (?:is|was|are|were) the winners? of\b => win
what: how far(?: away)? (?:is|are) (?!.* (?:from|to) )(.+) => distance to \1
how-to: what is the formula (?:for|to)(?: calculating| calculate| computing)?\b => calculate
# Sizes and amounts.
do: (?:what|how much) (?:is|are) (\d\S*(?: [^\s\d]+)?) (?:in|to) (\S+)$ => convert \1 to \2
what: how far(?: away)? is (?:it from )?(.+?) (?:from|to) (.+) => distance between \1 and \2
what: (?:what is |calculate )?the distance from (.+?) to (.+) => distance between \1 and \2
what: (?:how|what) is the weather(?: like)?\b => weather
do: how many (\w+) (?:is|are|make|equal|equals)(?: there)?(?: in)? (\d.*) => convert \2 to \1
what: how (?:long|much time) (?:does|do|will|would) (?!it\b)(.+?)
   (?:usually |normally |typically )?take\b => duration of \1
what: what is the (delivery|shipping|cooking|boiling|baking|waiting|processing|travel|charging|response
  |flight) time\b(?: (?:of|for))? => duration of \1
what: how many (?:people|inhabitants|residents|persons) (?:live|are living|reside|are there) in\b => population of
what: how many (?:people|inhabitants|residents) (?:does|do) (.+?) have\b => population of \1
what: how (?:tall|high) (?:is|are|was|were)\b => height of
what: <open> height (?:is|are|was|does|do)\b => height of
what: how old (?:is|are|was|were)\b => age of
what: how (?:big|large) (?:is|are|was|were)\b => size of
what: how fast (?:is|are|was)\b => speed of
what: how heavy (?:is|are|was|were)\b => weight of
what: how much (?:does|do|did|will) (.+?) weigh\b => weight of \1
what: how deep (?:is|are|was)\b => depth of
what: how wide (?:is|are|was)\b => width of
what: how (?:expensive|pricey|costly) (?:is|are|was|were)\b => price of
what: how much (?:does|do|did|will|would) (?:it cost (?:me )?(?:to)?|i (?:have to |need to )?pay (?:for
  |to))\b => price of
what: how much (?:does|do|did|will|would) (.+?) cost\b => price of \1
what: how much money (?:does|do|did|will|would) (.+?) cost\b => price of \1
what: how much (?:is|are) (?:the|a|an)\b => price of
what: how (?:long|much time) (?:does|do|will|would|should|did|might) (?:it )?(?:usually |normally |typically[ ]
  |generally )?take(?: for)?(?: (?:me|us|you|someone) )?(?: to)?\b => duration of
what: how (?:long|much time) (?:do|does|should|must|will|would) <who> (?:need to |have to |need[ ]
  |take to )?\b => duration of
what: how (?:long|much time) (?:do|does|should|must|will|would)\b => duration of
what: how much time is (?:needed|required)(?: to| for)?\b => duration of
what: <open> <be> the (?:cooking |boiling |baking |required |usual )?(?:duration|time needed|time required)(?: of
  | to| for)?\b => duration of
what: how (?:often|frequently|regularly) (?:do|does|should|must|can|will|would|is|are|did) (?:<who> (?:need to[ ]
  |have to )?)? => frequency of
what: <open> <be> the (?:recommended )?frequency (?:of|for)\b => frequency of
what: how long (?:is|are|was)\b => length of
how-many: how many\b
how-many: <open> <be> the (?:total |exact )?number of\b
how-many: (?:count|state) the number of\b
how-many: <open> number of\b
how-many: (?:the |total )*number of\b
how-much: how much\b
how-much: <open> (?:is the )?(?:amount|quantity) of\b
what: (?:calculate|compute|work out|determine)\b
# Why.
why: (?:(?:explain|describe|understand)(?: to)?(?: me| us)? )?why (?:is it that |exactly )?(?:is it |do we[ ]
  |do you )?\b
why: how come\b
why: (?:for )?what reasons?(?: (?:is|are) there)?(?: for| do| does| did| is| are)?\b
why: <open> <be> (?:the |some |a )?(?:main |exact |underlying )?(?:reasons?|causes?|explanation)(?: why| that| for
  | of| behind)?\b
why: what (?:makes|made|causes|caused|is causing|has caused|leads to|led to)(?: the| a| an)?\b
why: (?:give|name|state|list)(?: me)? the (?:reasons?|causes?) (?:why|for|of|behind)\b
why: (?:the |what )?(?:reasons?|causes?) (?:why|for|of|behind)\b
# When and where.
when-year: (?:in|since) (?:what|which) year\b
when-year: (?:what|which) year\b
when-year: what (?:is|was) the year(?: of| that| when| in which)?\b
when-time: what is the (?:current |local )?time in\b => in
when-time: (?:at )?(?:what|which) time\b
when-day: (?:on )?(?:what|which) (?:day|date)\b
when-day: what (?:is|was) the (?:exact )?date(?: of| that| when| on which)\b
when: when is (?:the |a )?(?:right |best |good |ideal )?time to\b|when exactly\b|when\b
where: (?:in|at) (?:what|which) (?:place|location|spot)\b
where: what is the (?:exact )?location of\b => locate-at
where: (?:in )(?:what|which) (?=(?:city|country|state|continent|town)\b)
where: where (?:exactly )?(?:can|could|should|do|would) (?:i|we|you|one) (?:find|see)\b
where-can: where (?:can|could|should|do|would) (?:i|we|you|one)\b
where: where exactly\b|where\b
# Who.
who: what (?:is|was) the name of the (?:person|man|woman|guy|people) (?:who|that)\b
who: (?:what|which) person\b
who: (?:what|which) (?=(?:team|artist|actor|actress|painter|poet|singer|scientist)\b)
who: by whom\b|who\b|whom\b
whose: whose\b
name: what (?:is|was|are) the names? of\b
how-to: how (?:can|could|should|must) (.+?) be (?=\w) => \1
how: how (?:do|does|did|is|are|was|were|can|could|would|will|has|have)\b
how: (?:explain|describe)(?: to)?(?: me| us)? how\b|how\b
# Yes or no.
whether: is it (?:true|the case|correct|right)(?: that)?\b|is it a fact that\b
whether: whether\b|if\b
whether-can: is it (?:possible|ok|okay|allowed|permitted|fine|alright|all right|feasible|permissible)(?: for (?:me
  |us|you|someone))?(?: to| if i)?\b
whether-can: (?:am i|are we|are you|is one) (?:able|allowed|permitted) to\b
whether-should: (?:is it|would it be) (?:advisable|recommended|a good idea|recommendable|wise
  |sensible)(?: for me)?(?: to)?\b
whether-must: (?:do|does) <who> (?:have|need) to\b|is it (?:necessary|required|mandatory
  |compulsory)(?: for me)?(?: to)?\b|am i required to\b
whether-must: must\b
whether-should: (?:should|ought|shall)\b
can-you: (?:can|could) you\b(?: please)?
do: (?:would|will) you\b(?: please)?
whether-can: (?:can|could|may|might)\b
whether: (?:is|are|was|were|do|does|did|will|would|has|have|had|am)\b
# What.
do: (?:write|compose|draft|create|generate|make|produce|prepare|come up with)(?: me| us)?(?: a| an| some| the)?\b
what: (?:give|provide|write|make|create)(?: me| us)?(?: with)? (?:a |an |the )?(?:short |brief |quick |concise[ ]
  |simple )?(?=summary|explanation|description|definition|translation|comparison|overview|recap)
what: <open> (?:does|do|did) (.+?) (?:mean|stand for|signify)\b => \1
what: <open> (?:is|are) (?:meant|understood) by\b
what: what do (?:you|we|people) mean by\b
what: <open> <be> (?:the )?(?:meaning|definition) of\b
what: (?:the )?(?:meaning|definition) of\b
explain: (?:explain|describe|define|clarify)(?: to)?(?: me| us)?(?: briefly)?(?: (?:the )?(?:meaning|concept|idea
  |notion|term|definition)(?: of)?)?(?: what)?(?: (?:a |an |the )?)\b
what: what (?:city|town) is (?:the )?capital\b => capital
what: which (?:city|town) is (?:the )?capital\b => capital
what: (?:name|list|give|show|tell|provide|state|enumerate|identify|mention|suggest|recommend)(?: me
  | us)?(?: with)?\b(?: what)?
what: <open>\b(?: <be>\b)?
"""
